"""One lab, from its definition to its report.

lab       the run
live      what a person sees meanwhile
shell     a guest of a lab, with a shell in it
prebuild  a lab's templates, made before they are needed
"""
