"""The handlers of all calls, one file per contract; what each takes and answers is in `app.wire`.

A handler reads the body through `app.gate`, asks `app.inference`, and answers. `admin` is for
operators; `page` and `problem_pages` are for people with a browser.
"""
