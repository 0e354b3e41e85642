"""Ways to come by a student. Each gives a `Student`: a module, and where its parts came from."""
