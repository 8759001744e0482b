"""Log in, refresh, look at one's sessions, and end them; and who it is that shows an access token."""
