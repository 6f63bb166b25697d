"""Entry points: `python -m functions.notifications.main`, and `function` for functions-framework."""

from functions.notifications.bootstrap import bootstrap
from functions.notifications.settings import Settings
from functions.runtime.process import Process

process = Process("notifications", bootstrap, Settings)
function = process.function

if __name__ == "__main__":
    process.main()
