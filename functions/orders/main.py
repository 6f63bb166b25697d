"""Entry points of orders: `python -m functions.orders.main`, and `function` for functions-framework."""

from functions.orders.bootstrap import bootstrap
from functions.orders.settings import Settings
from functions.runtime.process import Process

process = Process("orders", bootstrap, Settings)
function = process.function

if __name__ == "__main__":
    process.main()
