"""Entry points of products: `python -m functions.products.main`, and `function` for functions-framework."""

from functions.products.bootstrap import bootstrap
from functions.products.settings import Settings
from functions.runtime.process import Process

process = Process("products", bootstrap, Settings)
function = process.function

if __name__ == "__main__":
    process.main()
