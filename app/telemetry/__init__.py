"""What operators see: figures for Prometheus, log lines, the context of traces.

tally keeps the numbers that workers share, metrics says what they mean, logs and requests write a
line for each request, traces and spans place it in a trace.
"""
