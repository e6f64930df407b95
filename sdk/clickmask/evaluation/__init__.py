"""Evaluation by the robot annotator, through the public Session API only."""
