module corelane/matrix

go 1.24
