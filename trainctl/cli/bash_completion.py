"""The bash side of tab completion, in place of Typer's: bash cuts words at `=`, our words are `model=mlp`."""

from __future__ import annotations

from typer import _completion_shared as shared

SCRIPT = r"""
%(complete_func)s() {
    # bash has cut the words at =, so join those between which there is no blank
    local IFS=$'\n' rest=${COMP_LINE:0:COMP_POINT} words=() last=-1 i bare cut
    for ((i = 0; i <= COMP_CWORD; i++)); do
        bare=${rest#"${rest%%%%[![:space:]]*}"}
        if [[ $last -ge 0 && "$bare" == "$rest" && -n "$rest" ]]; then
            words[last]+=${COMP_WORDS[i]}
        else
            words[++last]=${COMP_WORDS[i]}
        fi
        rest=${bare#"${COMP_WORDS[i]}"}
    done
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" COMP_CWORD=$last %(autocomplete_var)s=complete_bash $1 ) )
    # and it puts an answer behind the last =
    cut=${words[last]%%"${words[last]##*=}"}
    [[ "$COMP_WORDBREAKS" == *=* ]] || cut=
    for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$cut"}; done
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=.] ]] && compopt -o nospace 2>/dev/null
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""


def install() -> None:
    """Let `--show-completion` and `--install-completion` give this script for bash."""
    shared._completion_scripts["bash"] = SCRIPT
