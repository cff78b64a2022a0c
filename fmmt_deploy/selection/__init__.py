"""Which precision each graph gets: what each costs and gains, which are worth it, and where a bad one goes wrong."""
