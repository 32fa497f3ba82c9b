"""Programs that run on the hosts. They import nothing but the standard library, and are sent as they are."""
