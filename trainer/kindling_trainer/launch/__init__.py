"""The launcher of a run, PID 1 of its pod, and the worker processes that it starts and watches."""
