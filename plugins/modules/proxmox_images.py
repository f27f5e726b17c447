#!/usr/bin/python
# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_images
short_description: Bring disk images for new virtual machines to the storages of a Proxmox VE cluster
version_added: "0.1.0"
author: Fediversity hosting contributors (@fediversity)
description:
  - Brings each image to its storage as content of type C(import), from where M(fediversity.hosting.proxmox_vms) copies the
    disks of new virtual machines. A shared storage gets it once, others once for each node.
  - An image is immutable. Its file is called C(fediversity-<name>-<first 12 digits of the checksum>.<format>), so a changed
    image is a new file beside the old one, and creations that are under way are not disturbed.
  - The server compares the checksum when it has received the file, and only then is the file there under its name. Later
    runs compare name and size only, so no image is read again. What an interrupted run left is brought again if its size
    is not that of the image.
  - Old versions of the image are removed. Files of any other name are never touched.
  - The user needs C(Datastore.AllocateTemplate) and C(Datastore.Audit) on the storage, C(Datastore.Allocate) to remove old
    versions, C(Sys.AccessNetwork) on the node for downloads, and C(Sys.Audit) on C(/) to learn the addresses of the nodes
    if O(node_addresses) does not name them.
options:
  images:
    description: The images, each listed once.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the image, lower-case letters, digits and single hyphens.
        type: str
        required: true
      state:
        description: V(absent) removes all versions of the image.
        type: str
        choices: [present, absent]
        default: present
      storage:
        description: Storage that takes content of type C(import).
        type: str
        required: true
      nodes:
        description:
          - Nodes that shall have the image; they must be up. Without it all nodes that have the storage and are up.
          - For a shared storage one of them does the work.
        type: list
        elements: str
      src:
        description:
          - File to upload, on the host where this module runs. It is sent block by block and never held in memory.
          - A storage that is not shared gets it from each node's own API, because a node passes no upload on.
        type: path
      url:
        description: Address from which the nodes download the image themselves.
        type: str
      validate_url_certs:
        description: Whether the nodes check the certificate of O(images[].url).
        type: bool
        default: true
      checksum:
        description:
          - Checksum of the file, V(sha256:...), V(sha384:...) or V(sha512:...) in hexadecimal digits; without algorithm it is
            SHA-256.
          - Needed for O(images[].url). For O(images[].src) the file is read at every run to compute it if it is not given.
        type: str
      size:
        description:
          - Size in bytes of what O(images[].url) gives, if it is known; a file of another size is then brought again.
        type: int
      format:
        description: Format of the image. Without it the end of the file's name or of the URL tells.
        type: str
        choices: [qcow2, raw, vmdk]
      keep:
        description: How many versions of the image stay on each storage, the wanted one and the newest of the others.
        type: int
        default: 2
  node_addresses:
    description:
      - Addresses C(host[:port]) of the API of single nodes, by node, for uploads to nodes that cannot be reached at the
        address which the cluster tells.
    type: dict
    default: {}
extends_documentation_fragment:
  - fediversity.hosting.attributes.full
  - fediversity.hosting.batch
  - fediversity.hosting.proxmox
seealso:
  - module: fediversity.hosting.proxmox_vms
"""

EXAMPLES = r"""
- name: Upload the NixOS image that was built here
  fediversity.hosting.proxmox_images:
    api_host: pve1.example.org,pve2.example.org
    api_user: fediversity@pve
    api_token_id: hosting
    api_token_secret: "{{ proxmox_token_secret }}"
    images:
      - name: nixos
        storage: local
        src: result/nixos.qcow2
  delegate_to: localhost
  register: images

- name: Create a virtual machine from it
  fediversity.hosting.proxmox_vms:
    vms:
      - name: vm-mastodon
        node: pve1
        disk:
          storage: local
          import_from: "{{ (images.results | selectattr('name', 'eq', 'nixos') | first).volid }}"
          size: 20
  delegate_to: localhost

- name: Let one node download an image, and keep no old version
  fediversity.hosting.proxmox_images:
    images:
      - name: nixos
        storage: local
        nodes: [pve1]
        url: https://images.example.org/nixos-26.05.qcow2
        checksum: sha256:5464533c9647b67eb320c40ccc5959537c09102ae75388f6a7675b433e745c9d
        keep: 1
  delegate_to: localhost
"""

RETURN = r"""
results:
  description: One entry for each image, sorted by name.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Name of the image.
      type: str
      sample: nixos
    action:
      description: What is to be done or was done.
      type: str
      sample: create
    changed:
      description: Whether anything was changed, or would be in check mode.
      type: bool
    failed:
      description: Whether the image was refused or could not be brought.
      type: bool
    msg:
      description: What failed, where, and what to do about it.
      type: str
    volid:
      description: The volume for C(disk.import_from) of M(fediversity.hosting.proxmox_vms); empty for V(absent).
      type: str
      sample: local:import/fediversity-nixos-5464533c9647.qcow2
    nodes:
      description: Nodes that have it or that were asked; one for a shared storage.
      type: list
      elements: str
      sample: [pve1, pve2]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fediversity.hosting.plugins.module_utils.module import (
    LIMIT_ARGUMENTS,
    require_libraries,
    run_batch,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.client import connect
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.connection import (
    CONNECTION_ARGUMENTS,
    CONNECTION_RULES,
    LIBRARIES,
    connection_of,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.images import (
    FORMATS,
    ImageDesired,
    Images,
    desired_images,
)
from ansible_collections.fediversity.hosting.plugins.module_utils.proxmox.uploads import Uploads

IMAGE = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "storage": {"type": "str", "required": True},
    "nodes": {"type": "list", "elements": "str"},
    "src": {"type": "path"},
    "url": {"type": "str"},
    "validate_url_certs": {"type": "bool", "default": True},
    "checksum": {"type": "str"},
    "size": {"type": "int"},
    "format": {"type": "str", "choices": list(FORMATS)},
    "keep": {"type": "int", "default": 2},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "dict", "required": True, "options": IMAGE},
            "node_addresses": {"type": "dict", "default": {}},
            **LIMIT_ARGUMENTS,
            **CONNECTION_ARGUMENTS,
        },
        supports_check_mode=True,
        **CONNECTION_RULES,
    )
    require_libraries(module, *LIBRARIES)

    def make() -> tuple[Images, tuple[ImageDesired, ...]]:
        desired = desired_images(module.params["images"])
        connection = connection_of(module.params)
        provider = Images(
            connect(connection),
            lambda: Uploads(connection, module.params["node_addresses"]),
            task_timeout=module.params["task_timeout"],
            report=module.log,
        )
        return provider, desired

    run_batch(module, make)


if __name__ == "__main__":
    main()
