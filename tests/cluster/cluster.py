#!/usr/bin/env python3
"""A real Kubernetes cluster on this machine, without Docker: for tests. Needs root, and Go the first time.

cluster.py up [--nodes N] [--bare]   start it, with MinIO, KubeRay and the project's images
cluster.py images                    build and push the images that changed, to a cluster that runs
cluster.py kill-node node-2          cut a node's power; start-node switches it on again
cluster.py restart apiserver         kill a daemon of the control plane, and start it again
cluster.py status | down
"""

from __future__ import annotations

import argparse
import sys

from kubenode import control_plane, images, lifecycle, tools
from kubenode.additions import kubectl
from kubenode.certificates import kubeconfig
from kubenode.node import all_nodes, node
from kubenode.places import TOOLS
from kubenode.processes import ClusterError


def main() -> None:
    """Do as the command line says."""
    arguments = _parser().parse_args()
    if problem := tools.missing_requirement():
        sys.exit(problem)
    try:
        _act(arguments)
    except ClusterError as problem:
        sys.exit(str(problem))


def _act(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "build":
            tools.install(tools.CLUSTER + tools.ADDITIONS + (tools.SIMULATION if arguments.simulation else ()))
        case "up":
            lifecycle.up(arguments.nodes, bare=arguments.bare)
            print(kubectl("get", "nodes,pods", "-A", "-o", "wide"), file=sys.stderr)
            print(f"export KUBECONFIG={kubeconfig()} PATH={TOOLS}:$PATH")
        case "images":
            lifecycle.update_images() if lifecycle.is_up() else images.build_images()
        case "kill-node":
            node(arguments.name).kill()
        case "start-node":
            node(arguments.name).start()
        case "restart":
            control_plane.restart(arguments.name)
        case "status":
            _print_status()
        case "down":
            lifecycle.down()


def _print_status() -> None:
    states = {"": control_plane.status(), **{f"{node.name} ": node.status() for node in all_nodes()}}
    for where, daemons in states.items():
        for name, runs in daemons.items():
            print(f"{where + name:24} {'running' if runs else 'stopped'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="only build the programs")
    build.add_argument("--simulation", action="store_true", help="KWOK too, for tests of scale")
    up = commands.add_parser("up", help="start the cluster, or what of it does not run")
    up.add_argument("--nodes", type=int, default=lifecycle.DEFAULT_NODES)
    up.add_argument("--bare", action="store_true", help="without MinIO, KubeRay and the project's images")
    commands.add_parser("images", help="build the project's images, and bring them to the nodes of a running cluster")
    commands.add_parser("kill-node", help="cut a node's power").add_argument("name")
    commands.add_parser("start-node", help="switch a node on again").add_argument("name")
    restart = commands.add_parser("restart", help="kill a daemon of the control plane, and start it again")
    restart.add_argument("name", choices=control_plane.DAEMONS)
    commands.add_parser("status", help="what runs")
    commands.add_parser("down", help="stop everything")
    return parser


if __name__ == "__main__":
    main()
