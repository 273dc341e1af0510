"""The page that shows what a build did."""
