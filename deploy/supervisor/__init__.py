"""Starts the programs of a mesh on this machine, watches them and ends them.

deploy/local.sh hands over to it (`python3 deploy/supervisor`, see __main__.py), and the integration tests and the
benchmark use it as a library: `supervisor.process` is the public module, the others are parts of the command.
Standard library only.
"""
