variable "name" {
  description = "Prefix of the names of everything that is made."
  type        = string
  default     = "touchstone"
}

variable "region" {
  description = "Region, such as eu-central-1."
  type        = string
}

variable "vpc_id" {
  description = "Network that the service stands in."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in two zones or more, with a route to ECR, S3, EFS, CloudWatch and Secrets Manager."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "A load balancer needs subnets in two zones."
  }
}

variable "allowed_cidrs" {
  description = "Addresses that may reach the load balancer, such as the network of the lab."
  type        = list(string)
  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for each in var.allowed_cidrs : tonumber(split("/", each)[1]) >= 8])
    error_message = "Name networks; the whole internet is none."
  }
}

variable "certificate_arn" {
  description = "Certificate of the name under which the service is reached (ACM)."
  type        = string
}

variable "repository" {
  description = "ECR repository of the image."
  type        = string
  default     = "touchstone"
}

variable "image_digest" {
  description = "Digest of the image, sha256:…; a tag may change, a digest may not."
  type        = string
  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image_digest))
    error_message = "Expected sha256: and 64 hexadecimal digits."
  }
}

variable "cpu" {
  description = "CPU units of the task, 1024 a core."
  type        = number
  default     = 2048
}

variable "memory" {
  description = "Memory of the task in MiB."
  type        = number
  default     = 8192
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 365
}

variable "stores_secret_arn" {
  description = "Secret (Secrets Manager) with the keys DATABASE_URL and CACHE_URL, of a PostgreSQL and a Redis in this network; null keeps jobs in SQLite."
  type        = string
  default     = null
}

variable "services" {
  description = "Tasks that serve; more than one need a database."
  type        = number
  default     = 1
  validation {
    condition     = var.services == 1 || (var.services > 1 && var.stores_secret_arn != null)
    error_message = "Several tasks share a database: name stores_secret_arn."
  }
}
