"""`make bench`: measures our code and its floor in turn, in one run, and compares the ratios with the budgets."""
