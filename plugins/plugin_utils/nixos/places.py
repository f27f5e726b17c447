# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a system is built and how that host is reached, as Ansible itself would reach it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.build import CONTROLLER, BuildHost, over_ssh
from ansible_collections.fediversity.hosting.plugins.plugin_utils.nixos.copy import SshTarget, ssh_target

SSH_OPTIONS = (
    "host",
    "port",
    "remote_user",
    "timeout",
    "private_key_file",
    "ssh_executable",
    "ssh_args",
    "ssh_common_args",
    "ssh_extra_args",
    "host_key_checking",
)


def machine_place(action: Any, name: str, compress: bool) -> BuildHost:
    """The task's own machine as a build host, over the connection of the action plugin `action`."""
    return _place(action._connection, name, str(action._play_context.remote_addr), compress)


def build_host(action: Any, build_on: str, machine: BuildHost, task_vars: Mapping[str, Any]) -> BuildHost:
    """The host that `build_on` names: controller, target, or a host of the inventory.

    :param machine: what `machine_place` has returned.
    :raises InvalidInput: there is no such host, or it is not reached over SSH.
    """
    if build_on == "controller":
        return CONTROLLER
    if build_on in ("target", machine.name):
        return machine
    hostvars = task_vars["hostvars"]
    if build_on not in hostvars:
        raise InvalidInput(f"the inventory has no host {build_on!r}", where="build_on")
    return _place(_connection(action, hostvars[build_on]), build_on, build_on, compress=False)


def connection_target(connection: Any, fallback: str, compress: bool) -> SshTarget:
    """The words of an ssh connection plugin's options.

    :param fallback: host, if the options name none.
    """
    option = {name: connection.get_option(name) for name in SSH_OPTIONS if connection.has_option(name)}
    return ssh_target({**option, "host": option.get("host") or fallback}, _control_path(connection), compress)


def _place(connection: Any, name: str, fallback: str, compress: bool) -> BuildHost:
    if connection.transport == "local":
        return CONTROLLER
    if not connection.has_option("ssh_args"):
        raise InvalidInput(f"{name} is not reached over SSH", where="build_on")
    return over_ssh(name, connection_target(connection, fallback, compress))


def _connection(action: Any, variables: Mapping[str, Any]) -> Any:
    """A connection plugin with the options it would have for a task that is delegated to the host.

    Variables win over keywords of the task and play, these over command line, environment and ansible.cfg: that order
    is the plugin's own (set_options). The values of hostvars are templated when they are read.
    """
    kind = variables.get("ansible_connection") or action._task.connection
    connection = action._shared_loader_obj.connection_loader.get(kind, action._play_context)
    if connection is None:
        raise InvalidInput(f"there is no connection plugin {kind!r}", where="build_on")
    names = constants.config.get_plugin_vars("connection", connection._load_name)
    keywords = {**action._task.dump_attrs(), "timeout": action._play_context.timeout}
    del keywords["retries"]  # the task's, not the connection's
    connection.set_options(
        task_keys=keywords, var_options={name: variables[name] for name in names if name in variables}
    )
    return connection


def _control_path(connection: Any) -> str:
    """Socket of the shared connection, as ansible.builtin.ssh named it when it opened one; empty if it has not."""
    path = getattr(connection, "control_path", None)
    directory = getattr(connection, "control_path_dir", None)
    if not path or not directory:
        return ""
    return str(path) % {"directory": os.path.abspath(os.path.expanduser(os.path.expandvars(directory)))}
