"""What a node agent can be asked to do: parameters and results of each job kind.

| kind | module | does |
|---|---|---|
| `fetch` | artifacts | bring an artifact here in the cheapest way: plan, ranged HTTP or rsync; its hash is checked |
| `pin`, `collect_garbage` | artifacts | what a campaign needs here, and removing what nobody needs |
| `start_worker` | engines | start (or find) the node's RPC worker |
| `start_engine` | engines | start the engine on this (root) node over the given workers |
| `stop_engine` | engines | stop the engine and, if asked, the worker |
| `marker` | workloads | step a CPU load on and off, to find the meter's lag |
| `prefill`, `decode` | workloads | fixed workloads with exact token ledgers |
| `score` | workloads | log-likelihoods of continuations, shared prefixes evaluated once |
| `generate` | workloads | greedy texts for benchmarks that judge what a model writes |
| `set_governor` | host | set the CPU frequency governor, where the node's settings allow it |
| `wait_steady` | host | wait until temperature and load are steady |
| `blink` | host | blink the board's status LED, so that a person finds the machine |

All times are UTC nanoseconds of the node's clock.
"""
