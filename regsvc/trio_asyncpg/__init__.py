"""asyncpg driven by Trio."""
