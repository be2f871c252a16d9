"""The processes that serve: one worker, or a supervisor and several.

`worker` runs uvicorn in this process, within the limits of `connections`. `supervisor` keeps
several of them alive, talks to them over `control` and reloads them by `reload`.
"""
