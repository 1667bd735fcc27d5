"""The site around the app: settings, addresses, servers, demo."""
