"""What the benchmarks share: a lean HTTP client, load in closed and open loops (wrk runs
`post.lua`), the machine's description, fair turns, tables and results.
"""
