"""Many labs at once.

schedule  which runs next, what is tried again, when to stop
pool      processes of this machine that run jobs
cluster   the same on other machines, by Dask
worlds    the worlds of labs' controls, run as labs are
job       one lab with everything that was asked of it, as plain data
board     what a person sees meanwhile
preload   what the processes import once for all
"""
