"""Every command of the command line by its name. A new one is an entry in its module's list."""

from explorer.commands import layer, neuron, system, workspace
from explorer.commands.command import Command

COMMANDS: dict[str, Command] = {
    command.name: command
    for module in (workspace, neuron, layer, system)
    for command in module.COMMANDS
}
