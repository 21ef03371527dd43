"""python -m emailproxy"""

from emailproxy.cli.main import main

main()
