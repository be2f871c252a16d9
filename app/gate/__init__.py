"""What every request passes, once: its id and trace, its key, room for its body, and on the way
out its problem, headers, figures and log line. `Gate` puts these together; `bodies`, `encodings`
and `forms` read what was sent; `Service` is what handlers answer with, and `reload` renews it.
"""
