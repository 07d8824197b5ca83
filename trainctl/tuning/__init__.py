"""Search: spaces, studies, worker processes and the loop that runs trials."""
