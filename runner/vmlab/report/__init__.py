"""One report and its renderings, and the same of many. Needs no QEMU.

model        the document: one lab's run, its evidence and its verdicts
schema       the published JSON Schema, made from the model; schema/ holds it
assemble     from evidence to a report, and back: judging, judging again, comparing the two
tasks        the student's own work in it
scores       judgements as a report holds them
predictions  what was predicted beside what was measured
batch        the document of a run of many labs
matrix       the document of a lab's controls: its checks against worlds in which its claims are false
table        the same as lines of text
matrix_page  the same as a page
merge        the documents of shards, joined
store        the directories that reports are kept in: made, found, read
publish      what is written there: documents first, then their renderings
html         a report as a page
index        many labs as a page
headline     how a run ended, as a sentence
plots        plots of the evidence
gantt        plots of what ran when
svg          matplotlib's pictures made fit for a page
translation  pictures of address translations
page         how pages are made from pages/
glossary     where their texts use terms that a page explains
junit        what CI services read
summary      what they show: Markdown
lines        what a terminal shows
sound        a report as the sound set of its lab's tests
text         what a guest printed made safe to show, and numbers with their units
"""
