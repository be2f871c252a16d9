"""What goes over the wire: answers, tensors, problems, and the contracts of all calls.

Nothing here decides anything: it gives what is known a form, and reads what was sent.
"""
