"""`make bench`: our code beside its floor, in turn, in one run; ratios against the budgets."""
