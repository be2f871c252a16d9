"""The processes that serve: one worker, or a supervisor and several.

`worker` runs uvicorn in this process; `connections` reads whole requests by `request_head` and
`request_body`, within limits. `supervisor` keeps each `worker_process` alive and talks to it over
`control`; `reload_coordinator` reloads all or none.
"""
