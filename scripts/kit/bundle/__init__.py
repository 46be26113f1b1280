"""The whole service in a folder that goes where no network is; docs/offline.md."""
