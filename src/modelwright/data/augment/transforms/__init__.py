"""The transforms, by what they change: every module here is a family of them."""
