"""Entry points: `python -m functions.payments.main`, and `function` for functions-framework."""

from functions.payments.bootstrap import bootstrap
from functions.payments.settings import Settings
from functions.runtime.process import Process

process = Process("payments", bootstrap, Settings)
function = process.function

if __name__ == "__main__":
    process.main()
