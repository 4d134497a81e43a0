"""completion: print the script that makes a shell complete verbs and options."""

from enum import StrEnum
from typing import Annotated

import typer

PROGRAM = "pra-agent"
VARIABLE = "_PRA_AGENT_COMPLETE"


class Shell(StrEnum):
    """Shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_SCRIPTS = {
    Shell.BASH: """\
_pra_agent_completion() {{
    local IFS=$'\\n'
    COMPREPLY=( $(COMP_WORDS="${{COMP_WORDS[*]}}" COMP_CWORD=$COMP_CWORD {variable}=complete_bash {program}) )
    return 0
}}
complete -o default -F _pra_agent_completion {program}
""",
    Shell.ZSH: """\
#compdef {program}
_pra_agent_completion() {{
    eval "$(env _TYPER_COMPLETE_ARGS="${{words[1,$CURRENT]}}" {variable}=complete_zsh {program})"
}}
compdef _pra_agent_completion {program}
""",
    Shell.FISH: """\
complete --command {program} --no-files \
--arguments "(env {variable}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
_TYPER_COMPLETE_ARGS=(commandline -cp) {program})" \
--condition "env {variable}=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args \
_TYPER_COMPLETE_ARGS=(commandline -cp) {program}"
""",
}


def command(shell: Annotated[Shell, typer.Argument(help="The shell: bash, zsh or fish.")] = Shell.BASH) -> None:
    """Print the shell's completion script.

    bash: pra-agent completion bash > /etc/bash_completion.d/pra-agent
    """
    print(_SCRIPTS[shell].format(program=PROGRAM, variable=VARIABLE), end="")
