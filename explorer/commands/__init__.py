"""Every command of the command line by its name. A new one is an entry in its module's list."""

from explorer.commands import explanation, layer, neuron, surgery, system, toy, workspace
from explorer.commands.command import Command

COMMANDS: dict[str, Command] = {
    command.name: command
    for module in (workspace, neuron, layer, toy, explanation, surgery, system)
    for command in module.COMMANDS
}
