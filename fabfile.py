"""`fab TASK`: everything is in launch/tasks.py."""

from launch.tasks import deploy, doctor, logs, profile, restart, start, status, stop, undeploy

__all__ = ["deploy", "doctor", "logs", "profile", "restart", "start", "status", "stop", "undeploy"]
