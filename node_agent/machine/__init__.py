"""The machine under the agent: facts, governor, LED, marker load, steady-state gate, agent activity."""
