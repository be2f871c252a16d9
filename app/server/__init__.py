"""The processes that serve: one worker, or a supervisor and several.

`worker` runs uvicorn in this process, within the limits of `connections`. `supervisor` keeps
several of them alive and talks to them over `control`; `reload_coordinator` reloads all or none.
"""
