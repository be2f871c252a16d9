"""What goes over the wire, without a server: answers, tensors, problems and how they are told.

`contracts` is the table of all calls, and `openapi` makes the document of it. Whoever adds a call
adds a row there, and a handler in `app.api`; whoever adds a cause of errors, one in `problems`.
"""
