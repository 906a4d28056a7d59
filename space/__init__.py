"""The Space's parts: the live conversation, the tabs' functions, and the page. `app.py` joins them."""
