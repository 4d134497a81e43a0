"""`python -m pra_agent` is the same as `pra-agent`."""

from pra_agent.cli import main

if __name__ == "__main__":
    main()
