"""What runs inside PostgreSQL: the contract, the client and the Multicorn wrapper."""
