"""Drop-ins for other packages. Each module needs the package it is named after; nothing else here does."""
