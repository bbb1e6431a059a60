"""Answers each order with what it holds."""

from vmlab_guest.say import orders, say

for count, order in enumerate(orders(), start=1):
    say(order, count=count)
