"""Entry points of the users service: `python -m functions.users.main`, and `function` for functions-framework."""

from functions.runtime.process import Process
from functions.users.bootstrap import bootstrap
from functions.users.settings import Settings

process = Process("users", bootstrap, Settings)
function = process.function

if __name__ == "__main__":
    process.main()
