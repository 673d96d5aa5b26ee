"""A payment provider, a warehouse and a message box to run against, with books of their own and faults on demand."""
