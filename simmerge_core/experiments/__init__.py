"""The paper's experiments (§4, App. F, G) and those past them, on tables that a demo catalog gives."""
