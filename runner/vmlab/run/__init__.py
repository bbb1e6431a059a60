"""One lab, from its definition to its report.

lab       the run, from its request to its report
tasks     the student's own work, tried
broken    what ended a lab's own code early
request   a job, which is what was asked for, with all of it looked at
session   this machine, taken for a lab's guests
screen    what a person sees meanwhile
shell     a guest of a lab, with a shell in it
prebuild  a lab's templates, made before they are needed
"""
