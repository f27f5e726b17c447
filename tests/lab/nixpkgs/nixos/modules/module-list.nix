# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later
[
  ./assertions.nix
  ./etc.nix
  ./lab.nix
  ./networking.nix
  ./systemd.nix
  ./toplevel.nix
  ./users.nix
  ./services/acme.nix
  ./services/nginx.nix
  ./services/openssh.nix
  ./services/redis.nix
  ./applications/mastodon.nix
  ./applications/peertube.nix
  ./applications/pixelfed.nix
]
